"""What a network is fed with: samples, pictures, arrays."""
