"""Reading images and ImageFolders."""
