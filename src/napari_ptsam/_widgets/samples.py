"""Sample data that has to be fetched: without making napari wait for it."""

from __future__ import annotations

from napari_ptsam.sample_data import LayerTuple, mitosis


def mitosis_sample() -> list[LayerTuple]:
    """Dividing cells; the layer is added when it is there.

    Returns
    -------
    list
        Empty where there is a viewer that gets the layer later, else the layer.
    """
    import napari

    from napari_ptsam._widgets.commands import open_dock
    from napari_ptsam._widgets.jobs import show
    from napari_ptsam._widgets.state import PluginState

    viewer = napari.current_viewer()
    if viewer is None:
        return mitosis()
    state = PluginState.of(viewer) or open_dock(viewer, "annotate").state

    def add(layers: list[LayerTuple]) -> None:
        for data, settings, _ in layers:
            viewer.add_image(data, **settings)

    state.jobs.aside(mitosis, add, show)
    return []
