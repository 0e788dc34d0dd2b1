"""What shapes an emulated link: TUN, the kernel's queues, a proxy."""
