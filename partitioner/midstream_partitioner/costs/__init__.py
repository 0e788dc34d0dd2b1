"""What things take, as values: links, devices, profiles, calibrations, and sizes."""
