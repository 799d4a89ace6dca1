"""One test for each way in which processes go wrong; innocents run beside each of them."""
