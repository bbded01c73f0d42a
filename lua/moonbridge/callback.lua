-- `moonbridge.callback`, from the compiled module.
return require "moonbridge.native" "moonbridge.callback"
