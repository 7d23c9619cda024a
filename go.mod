module github.com/hexkv/hexkv

go 1.24
