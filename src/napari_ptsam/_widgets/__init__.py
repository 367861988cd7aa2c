"""The napari side: widgets that gather values and show results."""
