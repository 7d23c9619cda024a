package binding

// #include <stdbool.h>
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

//export hexkvGoLog
func hexkvGoLog(level C.int, line *C.char, _ unsafe.Pointer) {
	if fn := logFunc.Load(); fn != nil {
		(*fn)(int(level), C.GoString(line))
	}
}

//export hexkvGoProgress
func hexkvGoProgress(done C.float, user unsafe.Pointer) C.bool {
	fn := (*(*cgo.Handle)(user)).Value().(func(float32) bool)
	return C.bool(fn(float32(done)))
}
