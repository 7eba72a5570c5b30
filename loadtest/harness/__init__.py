"""What loadtest/run and loadtest/crosscheck are made of: one idea a module."""
