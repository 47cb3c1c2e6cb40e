"""The devices that a model can be measured on, one file each."""
