"""An edge and a cloud as processes, started and surely ended."""
