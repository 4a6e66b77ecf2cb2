"""A tree of five categories, and a small file in each of the three formats."""

from pathlib import Path

from schemas.taxonomy import Category, Taxonomy
from schemas.taxonomy_readers import read_taxonomy

FRUIT = Category("f", ("Fruit",), None)
APPLE = Category("f/a", ("Fruit", "Apple"), "f")
GALA = Category("f/a/g", ("Fruit", "Apple", "Gala"), "f/a")
PEAR = Category("f/p", ("Fruit", "Pear"), "f")
DAIRY = Category("d", ("Dairy",), None)
TREE = (GALA, FRUIT, DAIRY, PEAR, APPLE)
GROCERIES = """\
category_id,category_path
f/a/g,Fruit > Apple > Gala
f,Fruit
d,Dairy
f/p,Fruit > Pear
f/a,Fruit > Apple
"""
SHOPIFY = """\
# Shopify Product Taxonomy - Categories: 2025-08-unstable
# Format: {GID} : {Ancestor name} > ... > {Category name}

gid://shopify/TaxonomyCategory/aa     : Apparel & Accessories
gid://shopify/TaxonomyCategory/aa-1-2 : Apparel & Accessories > Clothing > Tops : Shirts
gid://shopify/TaxonomyCategory/aa-1   : Apparel & Accessories > Clothing
"""
GOOGLE = """\
# Google_Product_Taxonomy_Version: 2021-09-21
166 - Apparel & Accessories
1604 - Apparel & Accessories > Clothing
5598 - Apparel & Accessories > Clothing > Coats - Jackets
"""


def read_content(folder: Path, content: str | bytes) -> Taxonomy:
    """Reads a taxonomy from the text or bytes of a file named `tree`."""
    data = content.encode() if isinstance(content, str) else content
    (folder / "tree").write_bytes(data)
    return read_taxonomy(folder / "tree")
