// Hands HLSL to Windows' own compilers, as wgpu's DX12 backend does: `compile.exe FXC.DLL DXC.DLL < LIST`. A line of the
// list is a target (cs_5_1: FXC, cs_6_0 and later: DXC) and a file; a line of the answer is "ok" or "refused", the
// target, the file, then what the compiler said.
#define COBJMACROS
#include <stdio.h>
#include <string.h>
#include <windows.h>
#include <d3dcompiler.h>

typedef struct { const void *text; SIZE_T size; UINT encoding; } DxcBuffer;
typedef struct DxcResult DxcResult;
typedef struct DxcCompiler DxcCompiler;
struct DxcResult {
    struct {
        HRESULT(WINAPI *QueryInterface)(DxcResult *, REFIID, void **);
        ULONG(WINAPI *AddRef)(DxcResult *);
        ULONG(WINAPI *Release)(DxcResult *);
        HRESULT(WINAPI *GetStatus)(DxcResult *, HRESULT *);
        HRESULT(WINAPI *GetResult)(DxcResult *, ID3DBlob **);
        HRESULT(WINAPI *GetErrorBuffer)(DxcResult *, ID3DBlob **);
    } *vtable;
};
struct DxcCompiler {
    struct {
        HRESULT(WINAPI *QueryInterface)(DxcCompiler *, REFIID, void **);
        ULONG(WINAPI *AddRef)(DxcCompiler *);
        ULONG(WINAPI *Release)(DxcCompiler *);
        HRESULT(WINAPI *Compile)(DxcCompiler *, const DxcBuffer *, const WCHAR **, UINT, void *, REFIID, void **);
    } *vtable;
};
static const GUID CLSID_compiler = {0x73e22d93, 0xe6ce, 0x47f3, {0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0}};
static const GUID IID_compiler3 = {0x228b4687, 0x5a6a, 0x4730, {0x90, 0x0c, 0x97, 0x02, 0xb2, 0x20, 0x3f, 0x54}};
static const GUID IID_result = {0x58346cda, 0xdde7, 0x4497, {0x94, 0x61, 0x6f, 0x87, 0xaf, 0x5e, 0x06, 0x59}};

static pD3DCompile fxc;
static DxcCompiler *dxc;
static char source[4 << 20];

static void *from(const char *dll, const char *name) {
    HMODULE module = LoadLibraryA(dll);
    void *found = module ? (void *)GetProcAddress(module, name) : NULL;
    if (!found) fprintf(stderr, "%s has no %s (error %lu)\n", dll, name, GetLastError()), exit(2);
    return found;
}

// Whether it was taken; `said` is what the compiler complained of, if anything.
static int compiled(const char *target, SIZE_T size, ID3DBlob **said) {
    ID3DBlob *object = NULL;
    if (strncmp(target, "cs_5", 4) == 0) {
        HRESULT status = fxc(source, size, NULL, NULL, NULL, "main", target, D3DCOMPILE_ENABLE_STRICTNESS, 0, &object, said);
        return SUCCEEDED(status) && object && ID3D10Blob_GetBufferSize(object) > 0;
    }
    WCHAR wide[16];
    MultiByteToWideChar(CP_UTF8, 0, target, -1, wide, 16);
    const WCHAR *arguments[] = {L"-E", L"main", L"-T", wide, L"-HV", L"2018", L"-no-warnings", L"-Ges"};
    DxcBuffer text = {source, size, CP_UTF8};
    DxcResult *result = NULL;
    HRESULT status = dxc->vtable->Compile(dxc, &text, arguments, 8, NULL, &IID_result, (void **)&result);
    if (FAILED(status) || !result) return 0;
    result->vtable->GetErrorBuffer(result, said);
    result->vtable->GetStatus(result, &status);
    if (SUCCEEDED(status)) result->vtable->GetResult(result, &object);
    result->vtable->Release(result);
    return SUCCEEDED(status) && object && ID3D10Blob_GetBufferSize(object) > 0;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    fxc = (pD3DCompile)from(argv[1], "D3DCompile");
    HRESULT(WINAPI *create)(REFIID, REFIID, void **) = from(argv[2], "DxcCreateInstance");
    if (FAILED(create(&CLSID_compiler, &IID_compiler3, (void **)&dxc))) return 2;
    char target[16], path[1024];
    while (scanf("%15s %1023s", target, path) == 2) {
        FILE *file = fopen(path, "rb");
        if (!file) return 2;
        SIZE_T size = fread(source, 1, sizeof source, file);
        fclose(file);
        ID3DBlob *said = NULL;
        int taken = compiled(target, size, &said);
        printf("%s %s %s ", taken ? "ok" : "refused", target, path);
        // Both end their text with a zero. Warnings come before the error that matters.
        const char *text = said && ID3D10Blob_GetBufferSize(said) ? ID3D10Blob_GetBufferPointer(said) : "";
        const char *error = strstr(text, "error");
        if (error) text = error;
        for (int i = 0; i < 600 && text[i]; i++) putchar(text[i] == '\n' || text[i] == '\r' ? ' ' : text[i]);
        putchar('\n');
        fflush(stdout);
        if (said) ID3D10Blob_Release(said);
    }
    return 0;
}
