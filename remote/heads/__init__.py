"""New classifiers on fixed features, and the choices that are made inside train."""
