"""What an emulated link does to packets: rates, queues, losses, outages."""
