"""The web page that plays `.sglat` files: ES modules beside this file, and what packs them."""
