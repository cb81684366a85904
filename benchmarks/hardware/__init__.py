"""What devices hold and can do by their makers' word, how they are joined, and cores."""
