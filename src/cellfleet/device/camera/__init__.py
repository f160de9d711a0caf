"""The camera process: stores images of the microscope as frames on the disk."""
