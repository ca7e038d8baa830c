"""Examples of using Mooring."""
