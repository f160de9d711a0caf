"""The pages of the fleet server, rendered here: Jinja2 templates, htmx for what refreshes by itself, ECharts for curves.

``mount(app, context)`` adds them to an application. Queries of a page are in ``queries_<topic>.py``, its addresses in
``<topic>_pages.py``; forms call the same services as the API.
"""

from cellfleet.fleet.pages.mounting import mount

__all__ = ["mount"]
