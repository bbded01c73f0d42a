-- What the application of make bench-app sells, and what customers say of it.
CREATE TABLE product (
  id integer PRIMARY KEY,
  name text NOT NULL,
  cents integer NOT NULL,
  stock integer NOT NULL,
  description text NOT NULL
);
CREATE TABLE comment (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  product integer NOT NULL REFERENCES product,
  author text NOT NULL,
  body text NOT NULL,
  created timestamptz NOT NULL DEFAULT now()
);
INSERT INTO product
  SELECT id, 'Product ' || id, id * 7 % 10000 + 99, id % 50, repeat('Good for bridges. ', 10)
  FROM generate_series(1, 10000) AS id;
ANALYZE;
