"""The model of an emulated link: rates, queues, losses, outages of packets."""
