"""Split inference between an edge device and a cloud server."""
