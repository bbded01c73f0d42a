"""The application for gunicorn, with Flask and psycopg."""
import threading

import psycopg
from flask import Flask, jsonify, request
from psycopg.rows import dict_row

COLUMNS = "id, name, cents, stock, description"

application = Flask(__name__)
local = threading.local()


def rows(statement, *values):
    """psycopg prepares a statement that a connection repeats."""
    if not hasattr(local, "connection"):
        local.connection = psycopg.connect(autocommit=True, row_factory=dict_row)
    return local.connection.execute(statement, values).fetchall()


@application.get("/product")
def product():
    found = rows(f"SELECT {COLUMNS} FROM product WHERE id = %s", request.args.get("id", type=int))
    if not found:
        return jsonify(error="there is no such product"), 404
    return jsonify(found[0])


@application.get("/products")
def products():
    statement = f"SELECT {COLUMNS} FROM product WHERE id > %s ORDER BY id LIMIT 20"
    return jsonify(products=rows(statement, request.args.get("after", type=int)))


@application.post("/comment")
def comment():
    form = request.form
    statement = "INSERT INTO comment (product, author, body) VALUES (%s, %s, %s) RETURNING product, author"
    return jsonify(rows(statement, int(form["product"]), form["author"], form["body"])[0]), 201
