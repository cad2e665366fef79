"""The switchboard of a pair of TFLite models: the float graph, rewritten so that it can switch."""
