// Package binding calls csrc/hexkv.h: one C call per function, structs in, status codes out, no policy.
// Programs use package hexkv, which is built on it.
//
// Handles are plain pointers without finalizers: closing twice, or use after closing, is the caller's bug.
package binding

// #cgo CFLAGS: -I${SRCDIR}/../csrc
// #cgo LDFLAGS: -L${SRCDIR}/../build/lib -lhexkv -lstdc++ -lm -lpthread -ldl
// #include "hexkv.h"
import "C"

import "unsafe"

// Status is the result of a call: a hexkv_status and, on failure, its sentence.
type Status struct {
	Code int // 0 = success
	Text string
}

// OK reports success.
func (s Status) OK() bool { return s.Code == 0 }

func status(code C.hexkv_status, e *C.hexkv_error) Status {
	if code == C.HEXKV_OK {
		return Status{}
	}
	if e == nil {
		return Status{Code: int(code)}
	}
	return Status{int(code), C.GoString(&e.text[0])}
}

// text reads a fixed C string field.
func text[T any](field *T) string { return C.GoString((*C.char)(unsafe.Pointer(field))) }

// setText writes a fixed C string field and reports whether s fits with its NUL.
func setText(field []C.char, s string) bool {
	if len(s) >= len(field) {
		return false
	}
	for i := range len(s) {
		if s[i] == 0 {
			return false
		}
		field[i] = C.char(s[i])
	}
	field[len(s)] = 0
	return true
}

func ptr[T any](s []T) *T {
	if len(s) == 0 {
		return nil
	}
	return &s[0]
}
