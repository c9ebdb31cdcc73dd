"""What is shown, as data: rows, orders, filters, actions. Pure functions of data."""
