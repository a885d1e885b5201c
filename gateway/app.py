"""create_app: every route on one page. Constructs only; `__main__` runs it."""

from __future__ import annotations

import falcon

from gateway import image, problems, server
from gateway.broker import Broker
from gpu_worker.results import ResultIndex


def create_app(broker: Broker, index: ResultIndex) -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application."""
    app = falcon.App()
    app.req_options.media_handlers = falcon.media.Handlers()
    app.req_options.strip_url_path_trailing_slash = True
    problems.register(app)
    app.add_route("/server/status", server.StatusResource(broker))
    app.add_route("/server/workers", server.WorkersResource(broker))
    app.add_route("/image/generate", image.GenerateResource(broker, index))
    app.add_route("/image/jobs/{uuid}", image.JobResource(broker, index))
    app.add_route("/healthz", server.HealthResource())
    return app
