"""The camera process: images of the microscope become frames on the disk."""
