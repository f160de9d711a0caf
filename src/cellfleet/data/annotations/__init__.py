"""Masks in: COCO shapes and label images to objects."""
