"""The files that both processes read: their layout, their lines, and their durability."""
