"""What lies in a file that `torch.save` wrote: an archive, a pickle, tensors in storages."""
