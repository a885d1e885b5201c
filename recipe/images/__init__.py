"""What the training images show, and how they are drawn."""
