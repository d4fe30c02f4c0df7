"""What the studies share: cells in processes of their own, pass rates over paired seeds, pages."""
