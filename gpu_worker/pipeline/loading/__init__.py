"""Finds models and loads them onto their device."""
