"""The cloud side: holds partitions and runs their tails for many edges."""
