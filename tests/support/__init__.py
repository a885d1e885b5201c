"""What several tests share: services, disks, models and images made on the spot."""
