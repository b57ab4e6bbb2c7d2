"""Pure functions on arrays. Each takes the form that is fastest on the device."""
