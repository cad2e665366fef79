"""What is measured: layers and blocks, the statistics of their data, the figures made of them."""
