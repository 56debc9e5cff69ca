// Prints types.json: which fields Kubernetes' own objects have, of which type, and which of them are left out when
// empty. OpenAPI does not say the last. Run it with `go run .` beside a go.mod that requires k8s.io/client-go.
package main

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

var versions = "v1 apps/v1 autoscaling/v1 autoscaling/v2 batch/v1 networking.k8s.io/v1 policy/v1 " +
	"rbac.authorization.k8s.io/v1 scheduling.k8s.io/v1 storage.k8s.io/v1"

// Types that write themselves; "any" is taken as it is.
var own = map[reflect.Type]string{
	reflect.TypeOf(resource.Quantity{}):    "quantity",
	reflect.TypeOf(intstr.IntOrString{}):   "any",
	reflect.TypeOf(metav1.Time{}):          "any",
	reflect.TypeOf(metav1.MicroTime{}):     "any",
	reflect.TypeOf(metav1.FieldsV1{}):      "any",
	reflect.TypeOf(runtime.RawExtension{}): "any",
	reflect.TypeOf([]byte{}):               "any",
}

var types = map[string]map[string]string{}

func name(t reflect.Type) string {
	if known, ok := own[t]; ok {
		return known
	}
	switch t.Kind() {
	case reflect.Pointer:
		return name(t.Elem())
	case reflect.Slice:
		return "[" + name(t.Elem())
	case reflect.Map:
		return "{" + name(t.Elem())
	case reflect.Struct:
		parts := strings.Split(t.PkgPath(), "/")
		full := strings.Join(parts[len(parts)-2:], ".") + "." + t.Name()
		if _, done := types[full]; !done {
			types[full] = map[string]string{}
			fields(t, types[full])
		}
		return full
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Int32, reflect.Int64, reflect.Int, reflect.Uint8:
		return "int"
	case reflect.Float64:
		return "float"
	}
	return "any"
}

// A field's type begins with ? if it is left out when empty: no pointer, and omitempty.
func fields(t reflect.Type, into map[string]string) {
	for i := 0; i < t.NumField(); i++ {
		field := t.Field(i)
		tag := strings.Split(field.Tag.Get("json"), ",")
		if tag[0] == "" && field.Anonymous {
			fields(field.Type, into)
		} else if tag[0] != "" && tag[0] != "-" && !(tag[0] == "status" && strings.HasSuffix(field.Type.Name(), "Status")) {
			mark := ""
			pointer := field.Type.Kind() == reflect.Pointer || field.Type.Kind() == reflect.Struct
			if !pointer && strings.Contains(field.Tag.Get("json"), "omitempty") {
				mark = "?"
			}
			into[tag[0]] = mark + name(field.Type)
		}
	}
}

func main() {
	kinds := map[string]string{}
	for _, version := range strings.Fields(versions) {
		for gvk, t := range scheme.Scheme.AllKnownTypes() {
			_, object := t.FieldByName("ObjectMeta")
			if gvk.GroupVersion().String() == version && object {
				kinds[version+" "+gvk.Kind] = name(t)
			}
		}
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{"kinds": kinds, "types": types})
}
