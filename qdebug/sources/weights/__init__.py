"""Two weight files of one model, as a source: the tensors of one name are a layer."""
