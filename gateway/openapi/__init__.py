"""The HTTP API as an OpenAPI document, from the models that validate. No route is served here."""
