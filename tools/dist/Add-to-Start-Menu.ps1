# Puts brooklet into the Start menu of whoever runs this, from the folder that this file is in:
#     powershell -ExecutionPolicy Bypass -File Add-to-Start-Menu.ps1
$folder = Split-Path -Parent $MyInvocation.MyCommand.Path
$menu = [Environment]::GetFolderPath("Programs")
$link = (New-Object -ComObject WScript.Shell).CreateShortcut((Join-Path $menu "brooklet.lnk"))
$link.TargetPath = Join-Path $folder "brooklet.exe"
$link.Arguments = "@COMMAND@"
$link.IconLocation = Join-Path $folder "brooklet.ico"
$link.WorkingDirectory = [Environment]::GetFolderPath("UserProfile")
$link.Description = "A language model that never has to stop"
$link.Save()
