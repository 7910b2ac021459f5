"""Between the values of a file and light, which adds up as values do not."""

GAMMA = 2.2  # values are light to the power of 1 / GAMMA, nearly as sRGB has it
