"""Backends of an emulated link: TUN, the kernel's queues, a proxy."""
