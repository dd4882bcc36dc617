"""Members that train together, in one compiled program; it knows neither `population` nor `loop`, which stand on it."""
