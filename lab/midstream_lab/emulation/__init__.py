"""Emulated links behind one interface: packets over TUN, the kernel's own queues, a proxy."""
