"""The pages of the fleet server, rendered here: Jinja2 templates, htmx for what refreshes by itself, ECharts for curves.

``mounting.mount(app, context)`` adds them to an application. Queries of a page are in ``queries/<topic>_queries.py``, its
addresses in ``views/<topic>_pages.py``; forms call the same services as the API.
"""
