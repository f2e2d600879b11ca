"""The demo: real flights, a good model, a broken one."""
