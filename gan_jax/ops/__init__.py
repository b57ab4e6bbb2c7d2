"""Pure functions on arrays, in the form that suits each device."""
