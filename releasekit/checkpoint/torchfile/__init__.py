"""What lies in a file of `torch.save`: an archive, a pickle, tensors in storages."""
