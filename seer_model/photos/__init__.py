"""From a row of a manifest to a square of pixels. Knows no model: it is given a size in pixels.

    source -> fetch -> decode -> square -> pixels    one photo; `loader` runs many, in order

- `source`: where a photo is: its address, or its bytes.
- `fetch`: bytes from a path, an object store or a web server. `http_client` blocks SSRF,
  `web_address` keeps addresses as they are given.
- `decode`: bytes to an upright sRGB image. `hardened_pillow` opens the file, `decode_cost`
  estimates memory and work from its header, `jpeg` decodes JPEGs and refuses half of one, `colour`
  converts modes, depths and colour profiles.
- `square`: image to its centred square, a uint8 array. `pixels`: the same, resized by torch.
- `loader`: thread pools that fetch and decode ahead, with backpressure by count and by bytes.
- `isolated`: the square of one photo at a time in a child process, to retry photos that may crash
  the decoder.
- `limits`: what is allowed (addresses, bytes, pixels, memory, time), and `PhotoRejected`.
- `byte_budget`: a number of bytes that threads share.

A photo that cannot be used raises `PhotoRejected`, with a reason of `schemas.rejects`. Any other
exception is a fault of the program or the machine, not of the photo.
"""
