"""Who decides, request by request, what runs where: the controller and its rivals."""
